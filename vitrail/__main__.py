"""`python -m vitrail`: the command where a launcher starts modules, `accelerate launch -m vitrail train …`."""

from vitrail.cli.main import main

if __name__ == "__main__":
    main()
