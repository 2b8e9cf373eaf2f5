"""Wall-to-wall prediction: from a raster of any size to a map with the same georeference, tile by tile."""
