"""How much of what photos show a mesh and its texture hold."""
