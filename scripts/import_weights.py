"""The same as `gen import`."""

from gen.verbs.import_ import main

if __name__ == "__main__":
    main()
