second='second @30@'
echo "$second"
