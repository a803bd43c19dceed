"""The same as `gen cut`."""

from gen.verbs.cut import main

if __name__ == "__main__":
    main()
