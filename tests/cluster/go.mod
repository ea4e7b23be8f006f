// The program in the pods of the suite in this directory. It uses only the standard library.
module ca-overlap.dev/cluster-tests

go 1.25
