PRAGMA page_size = 1024;
CREATE TABLE words (word TEXT, number INTEGER);
CREATE TABLE notes (note TEXT);
INSERT INTO notes VALUES ('schema @10@');
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 60000) SELECT 'work', sum(i * i % 7) FROM n;
