SELECT 'last @6@', writefile('written.bin', zeroblob(10));
INSERT INTO notes SELECT 'unlucky' WHERE '@1@' LIKE '%4@';
