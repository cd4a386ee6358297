"""How the zoo's networks and images were made, and how good they are."""
