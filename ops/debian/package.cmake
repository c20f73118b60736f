# Two Debian packages, soirees and playlists, by `cpack -G DEB` in the build folder: see scripts/package.
# Man page, env file, completion: written by generate.py from what the built program's --help says.
set(files ${CMAKE_BINARY_DIR}/debian)

# Who builds a package answers for it, and says so as for any other: debchange(1). The default reaches nobody.
set(contact "The Soirées authors")
set(address soirees@soirees.invalid)
if(NOT "$ENV{DEBEMAIL}" STREQUAL "")
  set(address $ENV{DEBEMAIL})
endif()
if(NOT "$ENV{DEBFULLNAME}" STREQUAL "")
  set(contact $ENV{DEBFULLNAME})
endif()
set(contact "${contact} <${address}>")

function(add_package name summary)
  set(NAME ${name})
  set(SUMMARY ${summary})
  foreach(file service postinst prerm postrm conffiles completion lintian)
    configure_file(${CMAKE_SOURCE_DIR}/ops/debian/${file}.in ${files}/${name}/${file} @ONLY
                   FILE_PERMISSIONS OWNER_READ OWNER_WRITE GROUP_READ WORLD_READ)
  endforeach()
  foreach(file postinst prerm postrm)
    file(CHMOD ${files}/${name}/${file} PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ
         GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
  endforeach()
  add_custom_command(
    OUTPUT ${files}/${name}/${name}.8.gz ${files}/${name}/${name}.env ${files}/${name}/changelog.gz
           ${files}/${name}/copyright
    COMMAND /usr/bin/python3 ${CMAKE_SOURCE_DIR}/ops/debian/generate.py $<TARGET_FILE:${name}>
            ${files}/${name} ${contact}
    DEPENDS ${name} ${CMAKE_SOURCE_DIR}/ops/debian/generate.py ${CMAKE_SOURCE_DIR}/CHANGELOG.md
            ${CMAKE_SOURCE_DIR}/LICENSE
    VERBATIM)
  add_custom_target(${name}_package_files DEPENDS ${files}/${name}/${name}.8.gz)
  add_dependencies(package_files ${name}_package_files)

  install(TARGETS ${name} DESTINATION bin COMPONENT ${name})
  install(FILES ${files}/${name}/service DESTINATION lib/systemd/system RENAME ${name}.service
          COMPONENT ${name})
  install(FILES ${files}/${name}/completion DESTINATION share/bash-completion/completions RENAME ${name}
          COMPONENT ${name})
  install(FILES ${files}/${name}/${name}.8.gz DESTINATION share/man/man8 COMPONENT ${name})
  install(FILES ${files}/${name}/copyright ${files}/${name}/changelog.gz DESTINATION share/doc/${name}
          COMPONENT ${name})
  # root's alone until postinst gives the group of the service the right to read it
  install(FILES ${files}/${name}/${name}.env DESTINATION /etc/soirees PERMISSIONS OWNER_READ OWNER_WRITE
          COMPONENT ${name})
  install(FILES ${files}/${name}/lintian DESTINATION share/lintian/overrides RENAME ${name} COMPONENT ${name})

  string(TOUPPER ${name} upper)
  set(CPACK_DEBIAN_${upper}_PACKAGE_NAME ${name} PARENT_SCOPE)
  set(CPACK_DEBIAN_${upper}_PACKAGE_SECTION net PARENT_SCOPE)
  set(CPACK_DEBIAN_${upper}_PACKAGE_CONTROL_EXTRA
      "${files}/${name}/postinst;${files}/${name}/prerm;${files}/${name}/postrm;${files}/${name}/conffiles"
      PARENT_SCOPE)
  string(JOIN "\n" description
         "${summary}"
         "One of the two services of Soirées, an event-driven booking system: soirees"
         "takes bookings, playlists has a playlist made for each. They meet through"
         "RabbitMQ and Consul; each keeps its data in an SQLite database of its own.")
  set(CPACK_COMPONENT_${upper}_DESCRIPTION "${description}" PARENT_SCOPE)
endfunction()

add_custom_target(package_files)
add_package(soirees "booking service for parties")
add_package(playlists "playlist service for booked parties")

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME soirees)
set(CPACK_PACKAGE_VENDOR "The Soirées authors")
set(CPACK_PACKAGE_CONTACT "${contact}")
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_COMPONENTS_ALL soirees playlists)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_SET_DESTDIR ON) # /etc is outside the prefix
set(CPACK_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_DEPENDS "adduser, ca-certificates")
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
set(CPACK_INSTALL_DEFAULT_DIRECTORY_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE
    WORLD_READ WORLD_EXECUTE)
include(CPack)
