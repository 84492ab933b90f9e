"""What a slide is to the rest of the program: records and protocols, no reading."""
