"""What train.py does besides its loop: open the data, save, validate, sum up."""
