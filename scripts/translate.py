"""The same as `gen translate`."""

from gen.verbs.translate import main

if __name__ == "__main__":
    main()
