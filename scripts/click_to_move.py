"""The same as `gen move`."""

from gen.verbs.move import main

if __name__ == "__main__":
    main()
