"""The same as `gen edit`."""

from gen.verbs.edit import main

if __name__ == "__main__":
    main()
