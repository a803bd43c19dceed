"""The same as `gen export`."""

from gen.verbs.export import main

if __name__ == "__main__":
    main()
