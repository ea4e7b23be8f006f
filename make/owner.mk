# Where ca-overlap is published. Nobody has registered a place for it yet, so both are empty, and no
# file of this repository names one: whoever registers such a name could serve a program of his to
# our users. An owner fills them in here, and nowhere else (docs/release.md#before-the-first-release).

# The registry and organisation of image and chart, such as registry.example/NAME.
REGISTRY ?=
# The address of this repository, such as https://git.example/NAME/ca-overlap.
REPOSITORY ?=
