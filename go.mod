module github.com/relais-edge/relais

go 1.26
