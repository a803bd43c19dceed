"""The same as `gen interpolate`."""

from gen.verbs.interpolate import main

if __name__ == "__main__":
    main()
