first="first @20@"
echo "$first"
