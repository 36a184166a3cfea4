define(`FIRST', `first @20@')dnl
