wc -l < "$1"
echo tool @3@
