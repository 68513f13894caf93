"""The shapes of characters: their images, and features of them that a ResNet18 learnt (section 4.1, Eq. 4)."""
