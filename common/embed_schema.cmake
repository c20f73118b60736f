# Writes OUTPUT: the schema files as `const struct db_migration NAME_schema[]`, in the order of their numbers.
set(rows "")
foreach(file IN LISTS FILES)
  get_filename_component(stem ${file} NAME_WE)
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "(..)" "\\\\x\\1" bytes "${bytes}")
  string(APPEND rows "    {\"${stem}\", \"${bytes}\"},\n")
endforeach()
list(LENGTH FILES count)
file(WRITE ${OUTPUT}
  "#include \"db.h\"\n\nextern const struct db_migration ${NAME}_schema[];\nextern const size_t ${NAME}_schema_count;\n"
  "const struct db_migration ${NAME}_schema[] = {\n${rows}};\nconst size_t ${NAME}_schema_count = ${count};\n")
