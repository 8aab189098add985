"""python -m resnetkit: the same as the command `resnet`, and what torchrun starts."""

from resnetkit.cli.app import main

if __name__ == "__main__":
    main()
