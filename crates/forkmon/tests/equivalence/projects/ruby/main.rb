# Required files, a glob, lines with work between, a journal that is rewritten with
# other lines, folders made and removed, links, a pipe, an exception at times.
require "fileutils"
$stdout.sync = true
Plugins = []
puts "begin"

def work(rounds)
  x = 1
  rounds.times { |i| x = (x * 1103515245 + i) & 0x7fffffff }
  x
end

def number(text)
  text.to_s[/@(\d+)@/, 1].to_i
end

puts "work #{work(150_000)}"
require_relative "lib/greeting"
puts GREETING, work(150_000)
Dir.glob("plugins/*.rb").sort.each { |name| load name; work(100_000) }
puts "plugins #{Plugins.join(",")}"

journal = File.exist?("journal.txt") ? File.readlines("journal.txt") : []
File.write("journal.txt", (journal.last(2) + ["entry #{Plugins.size}\n"]).join)
sum = 0
File.foreach("list.txt") do |line|
  sum += number(line)
  work(50_000)
end
puts "sum #{sum}"

FileUtils.mkdir_p("out/a/b")
FileUtils.mkdir_p("out/c")
File.open("out/a/b/exclusive", File::WRONLY | File::CREAT | File::EXCL, 0o600) { |f| f.puts sum }
FileUtils.cp("list.txt", "out/copy")
FileUtils.mv("out/a/b/exclusive", "out/a/moved")
FileUtils.rmdir("out/a/b")
File.symlink("moved", "out/a/link")
File.link("out/copy", "out/c/hard")
File.chmod(0o640, "out/copy")
puts "files #{Dir.glob("out/**/*").sort.join(",")} #{work(150_000)}"
File.open("out/patched", "w+") do |file|
  file.write("0000\n")
  File.foreach("more.txt") { |line| file.write(line) }
  file.seek(0)
  file.write(format("%04d", sum % 10_000))
end
warn "a warning #{sum}"
puts IO.popen(["cat", "child.txt"], &:read)
last = File.exist?("last.txt") ? number(File.read("last.txt")) : -1
puts "last #{last} #{work(150_000)}"
abort "unlucky" if last % 5 == 4
exit last % 3
