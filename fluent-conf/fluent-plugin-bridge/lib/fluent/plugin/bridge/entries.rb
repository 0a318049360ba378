# frozen_string_literal: true

require 'fluent/event'
require 'fluent/msgpack_factory'
require 'fluent/time'

module Fluent
  module Plugin
    module Bridge
      # Packed events: msgpack arrays [time, record] one after the other, as in Fluentd's buffers.
      module Entries
        module_function

        # @param stream [Fluent::EventStream]
        # @return [String] its events, packed; not a copy where they were
        def pack(stream)
          case stream
          when Fluent::MultiEventStream, Fluent::ArrayEventStream, Fluent::OneEventStream then pack_objects(stream)
          else stream.to_msgpack_stream
          end
        end

        # @param entries [String]
        # @return [Array<Integer>] where each event begins, and where the last ends; what follows that is no msgpack
        def boundaries(entries)
          offsets = [0]
          unpacker = Fluent::MessagePackFactory.msgpack_unpacker
          unpacker.feed(entries)
          buffer = unpacker.buffer
          loop do
            unpacker.skip
            offsets << (entries.bytesize - buffer.size)
          end
        rescue EOFError, MessagePack::UnpackError
          offsets
        end

        # @param entries [String]
        # @param limit [Integer] bytes
        # @return [Array<String>] the same in pieces of at most so many bytes, but for larger events
        def cut(entries, limit)
          return [entries] if entries.bytesize <= limit

          ends = boundaries(entries)
          ends << entries.bytesize if ends.last < entries.bytesize
          pieces = []
          from = 0
          ends.each_cons(2) do |before, after|
            next if after - from <= limit || before == from

            pieces << entries.byteslice(from, before - from)
            from = before
          end
          pieces << entries.byteslice(from..)
        end

        # @param entries [String]
        # @return [Array<String>] the two halves, cut between events; one piece if there is but one
        def halves(entries)
          ends = boundaries(entries)
          ends << entries.bytesize if ends.last < entries.bytesize
          return [entries] if ends.size < 3

          middle = ends[ends.size / 2]
          [entries.byteslice(0, middle), entries.byteslice(middle..)]
        end

        # Fluentd's own way calls the extension's Ruby method for each time, which is half of all that packing costs.
        # Here the times are packed together.
        def pack_objects(stream)
          times = []
          records = []
          stream.each do |time, record|
            # EventTime's extension is both in 32 bits, big endian (time.rb, to_msgpack_ext).
            return stream.to_msgpack_stream unless time.instance_of?(Fluent::EventTime)

            times << time.sec << time.nsec
            records << record
          end
          times = times.pack('N*')
          packer = Fluent::MessagePackFactory.msgpack_packer
          records.each_with_index do |record, index|
            packer.write_array_header(2)
            packer.write_ext(Fluent::EventTime::TYPE, times.byteslice(index * 8, 8))
            packer.write(record)
          end
          packer.full_pack
        end
        private_class_method :pack_objects
      end
    end
  end
end
