"""The same as `gen generate`."""

from gen.verbs.generate import main

if __name__ == "__main__":
    main()
