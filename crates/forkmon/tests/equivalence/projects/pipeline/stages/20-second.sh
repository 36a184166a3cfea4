sort -r | sed 's/^/second /'
echo 'end @2@'
