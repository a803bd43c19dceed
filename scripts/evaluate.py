"""The same as `gen evaluate`."""

from gen.verbs.evaluate import main

if __name__ == "__main__":
    main()
