"""The same as `gen demo`."""

from gen.verbs.demo import main

if __name__ == "__main__":
    main()
