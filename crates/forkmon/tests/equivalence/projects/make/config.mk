MARK := mark @20@
