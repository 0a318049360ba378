# frozen_string_literal: true

require 'fluent/plugin/buffer'
require 'monitor'

module Fluent
  module Plugin
    module Bridge
      # Has threads write into a buffer in turns, as this gem's plugins emit from several.
      #
      # What does not fit into a chunk gets new ones, and the last of them is staged in place of what another thread
      # has staged meanwhile (buffer.rb of 1.18 and 1.20, Buffer#write, `@stage[m] = u.staged!`). That chunk is not seen
      # again until the next start, and one in memory never. Waiting for room is outside of it (output.rb, write_guard).
      module OneWriter
        def start
          @one_writer = Monitor.new
          super
        end

        def write(...)
          @one_writer.synchronize { super }
        end

        Fluent::Plugin::Buffer.prepend(self)
      end
    end
  end
end
