// Package document turns files into documents of api/v1: YAML or JSON, many documents to a file,
// decoded strictly, with values from the environment, and with all that is wrong in all files told
// at once, each problem with its line.
//
// A file is cut at its document marks and the parts are read side by side. A reader for the plain
// part of YAML that people and machines mostly write (fast.go) reads a part; when it meets anything
// else the library reads that part again (library.go), and only the library says what is wrong with
// the syntax. The two agree on everything that both read, which FuzzDecode proves.
package document
