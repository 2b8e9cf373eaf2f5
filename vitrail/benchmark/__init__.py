"""Speed of models and exports, and of the libraries beside us."""
