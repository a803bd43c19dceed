"""The same as `gen pictures`."""

from gen.verbs.pictures import main

if __name__ == "__main__":
    main()
