"""What a patient is made of, as functions of position: chest, vessels, foam, nodules, disease."""
