"""What is known of a character: its sound, image, parts, look-alikes, and the words it stands in."""
