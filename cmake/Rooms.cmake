# A room, which is a folder of graft/, cli/ or tests/, is compiled as one file: what its files include is read once, and all
# compiles in less than half the time. GRAFT_ROOMS=OFF compiles each file alone, as lint and the dev preset do, so a file that
# leans on what its neighbours include does not stay unseen. Files of graft/models stay alone: each has the same few functions.
option(GRAFT_ROOMS "compile each folder as one file" ON)

function(graft_compile_by_rooms target)
  get_target_property(sources ${target} SOURCES)
  foreach(source ${sources})
    file(RELATIVE_PATH room ${CMAKE_SOURCE_DIR} ${source})
    get_filename_component(room ${room} DIRECTORY)
    string(MAKE_C_IDENTIFIER ${room} room)
    if(NOT room STREQUAL graft_models)
      set_source_files_properties(${source} PROPERTIES UNITY_GROUP ${room})
    endif()
  endforeach()
  # GCC takes a struct with unnamed-namespace members for a header's when its file is included, and inlines so much of a
  # room that it loses track of what was set.
  target_compile_options(${target} PRIVATE
    $<$<AND:$<BOOL:${GRAFT_ROOMS}>,$<CXX_COMPILER_ID:GNU>>:-Wno-subobject-linkage;-Wno-maybe-uninitialized>)
  set_target_properties(${target} PROPERTIES UNITY_BUILD ${GRAFT_ROOMS} UNITY_BUILD_MODE GROUP)
endfunction()
