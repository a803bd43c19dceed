"""The same as `gen attention`."""

from gen.verbs.attention import main

if __name__ == "__main__":
    main()
