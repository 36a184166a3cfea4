$second = q(second @30@);
1;
