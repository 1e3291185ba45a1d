# find_package(sandcell) gives the targets sandcell::sandcell (shared) and sandcell::static.
get_filename_component(_sandcell_prefix "${CMAKE_CURRENT_LIST_DIR}/../../.." ABSOLUTE)
if(NOT TARGET sandcell::sandcell)
  add_library(sandcell::sandcell SHARED IMPORTED)
  set_target_properties(sandcell::sandcell PROPERTIES
    IMPORTED_LOCATION "${_sandcell_prefix}/lib/libsandcell.so.0"
    IMPORTED_SONAME "libsandcell.so.0"
    INTERFACE_INCLUDE_DIRECTORIES "${_sandcell_prefix}/include")
  add_library(sandcell::static STATIC IMPORTED)
  set_target_properties(sandcell::static PROPERTIES
    IMPORTED_LOCATION "${_sandcell_prefix}/lib/libsandcell.a"
    INTERFACE_INCLUDE_DIRECTORIES "${_sandcell_prefix}/include"
    INTERFACE_LINK_LIBRARIES "gcc_s;util;rt;pthread;m;dl;c")
endif()
unset(_sandcell_prefix)
