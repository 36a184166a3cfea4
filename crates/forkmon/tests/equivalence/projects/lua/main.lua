-- Reads modules, a config that names the next file, a list line by line, and an
-- optional file; writes a report, a log that it appends to, a file whose header it
-- patches, and a state that it reads and rewrites.
print("begin", ("@10@"):match("%d+"))

local function work(rounds)
  local x = 1
  for i = 1, rounds do x = (x * 1103515245 + i) % 2147483648 end
  return x
end

local function slurp(name)
  local file = io.open(name)
  if not file then return nil end
  local text = file:read("a")
  file:close()
  return text
end

local function spew(name, mode, text)
  local file = assert(io.open(name, mode))
  file:write(text)
  file:close()
end

package.path = "./?.lua;./lib/?.lua"
local state = slurp("state.txt") or "0"
spew("state.txt", "w", (tonumber(state:match("%d+")) or 0) + 1 .. "\n")
print("work", work(400000))

local shapes = require("shapes")
print("shapes", shapes.name, work(400000))

local config = {}
for line in io.lines("config.txt") do
  local key, value = line:match("^(%w+)%s+(.+)$")
  if key then config[key] = value end
  work(100000)
end
print("config", config.scale, config.source)

local override = slurp("override.txt")
print("override", override or "none", work(300000))

local sum = 0
for line in io.lines("data/" .. (config.source or "missing") .. ".txt") do
  local number = tonumber(line:match("@(%d+)@")) or 0
  sum = sum + number
  work(50000)
end
print("sum", sum)
spew("log.txt", "a", "sum " .. sum .. "\n")

-- A header that is patched when the length is known.
local out = assert(io.open("report.txt", "w"))
out:write("length 00000000\n")
for i = 1, sum % 50 do out:write("row ", i, " ", shapes.area(i), "\n") end
out:flush()
print("work", work(400000))
local length = out:seek("end")
out:seek("set", 7)
out:write(("%08d"):format(length))
out:close()

local found, extra = pcall(require, "extra")
print("extra", found and extra.name or "none")
spew("part.tmp", "w", "part " .. sum .. "\n")
assert(os.rename("part.tmp", "part.txt"))
spew("gone.tmp", "w", "x")
assert(os.remove("gone.tmp"))
print("last", slurp("last.txt"))
if sum % 7 == 3 then error("unlucky " .. sum) end
os.exit(sum % 5)
