"""The same as `gen compare`."""

from gen.verbs.compare import main

if __name__ == "__main__":
    main()
