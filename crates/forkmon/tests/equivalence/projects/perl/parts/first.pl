$first = q(first @20@);
1;
