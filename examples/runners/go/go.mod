module example.org/misbehaving

go 1.19
