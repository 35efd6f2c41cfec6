"""The test methods of medicaltest.py: where data and models meet."""
