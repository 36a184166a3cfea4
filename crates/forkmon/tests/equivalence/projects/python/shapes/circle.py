NAME = "circle @20@"
