# Writes OUTPUT, a C file that holds FILES: `const TYPE NAME[]` of {file name without its ending, content}, in
# the order given, and `const size_t NAME_count`. HEADER declares TYPE.
set(rows "")
foreach(file IN LISTS FILES)
  get_filename_component(stem ${file} NAME_WE)
  file(READ ${file} bytes HEX)
  string(REGEX REPLACE "(..)" "\\\\x\\1" bytes "${bytes}")
  string(APPEND rows "    {\"${stem}\", \"${bytes}\"},\n")
endforeach()
list(LENGTH FILES count)
file(WRITE ${OUTPUT}
  "#include <stddef.h>\n\n#include \"${HEADER}\"\n\n"
  "extern const ${TYPE} ${NAME}[];\nextern const size_t ${NAME}_count;\n"
  "const ${TYPE} ${NAME}[] = {\n${rows}};\nconst size_t ${NAME}_count = ${count};\n")
