sed 's/@1/@one/'
# @1@
