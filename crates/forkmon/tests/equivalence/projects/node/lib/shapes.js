exports.name = "shapes @20@";
exports.area = (n) => n * Number("@3@".replace(/@/g, ""));
