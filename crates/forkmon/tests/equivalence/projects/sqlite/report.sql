.output report.txt
SELECT word FROM words ORDER BY word LIMIT 5;
.output
INSERT INTO notes VALUES (readfile('note.txt'));
SELECT 'note', note FROM notes;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT 'work', sum(i * i % 7) FROM n;
VACUUM;
.once copy.csv
SELECT * FROM words WHERE number < 20;
.read last.sql
