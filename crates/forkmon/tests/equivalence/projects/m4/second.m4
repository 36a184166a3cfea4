define(`SECOND', `second @30@')dnl
